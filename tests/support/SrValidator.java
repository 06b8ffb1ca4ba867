import com.pixelmed.validate.DicomSRValidator;

/** PixelMed's validator over several files in one virtual machine: reading its rules takes ten times as long as a file. */
public class SrValidator {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("== " + file);
            System.out.println(validator.validate(file));
        }
    }
}
